"""Folders as clients send them: every way of writing a table, with every flaw, from a seed."""

from random import Random

CODINGS = [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")]
CODINGS += [("latin-1", b"")]
HEADERS = {
    "timesheet": {
        "date": ["date", "Datum", "DATE"],
        "project": ["project", "Projekt", " Project "],
        "task": ["task", "Aufgabe", "Tätigkeit"],
        "hours": ["hours", "Stunden", "Hours (h)"],
        "rate": ["rate", "Satz", "Stundensatz", "Rate [EUR/h]"],
        "currency": ["currency", "Währung", "CURRENCY"],
    },
    "invoice": {
        "number": ["number", "Rechnungsnummer", "NUMBER"],
        "date": ["date", "Rechnungsdatum", "Date"],
        "due_date": ["due_date", "Fällig am", "Due date", "Fälligkeitsdatum"],
        "amount": ["amount", "Betrag", "Amount (EUR)"],
        "currency": ["currency", "Währung"],
        "status": ["status", "Status"],
        "paid_date": ["paid_date", "Bezahlt am", "Paid date"],
    },
}
CURRENCIES = ["EUR", "eur", "Euro", "USD", "us$", "JPY", "KWD", "CHF"]
NUMBERS = [
    "1.234",
    "1,234",
    "1.234,56",
    "1,234.56",
    "1 234,5",
    "1'234.50",
    "1\u00a0234,5",
    "2.345.678",
    "0.125",
]
NUMBERS += ["0,5", "7.5", "7,5", "90", "100", "12.345", "33.335", "0.005", "1.2345", "1,005", "80.10", "012"]
HOURS = ["8", "7.5", "7,5", "0.25", "0,25", "24", "1.234", "1,234", "2.345", "0.333", "12,125", "1.00", "0.1"]
POINT, COMMA = set(NUMBERS + HOURS), set(NUMBERS + HOURS)  # what a column of one convention may hold
POINT -= {"1.234,56", "1 234,5", "1\u00a0234,5", "2.345.678", "0,5", "7,5", "0,25"}
COMMA -= {"1,234.56", "1'234.50", "0.125", "7.5", "0.005", "1.2345", "80.10", "0.25", "0.333", "1.00", "0.1"}
UNDECIDED = {"1.234", "1,234", "12.345", "33.335", "1,005", "90", "100", "8", "24", "012", "2.345"}
BAD_HOURS = [
    "0",
    "0.00",
    "24.01",
    "24,01",
    "-1",
    "25",
    "1e1",
    "abc",
    "",
    "7:30",
    "NaN",
    "8h",
    "1.2.3",
    "1,,2",
]
BAD_NUMBERS = ["", "x", "1.23.4", "12.34,5", "--5", "1e5", "½", "1 23", "5.", "inf"]
BAD_DATES = [
    "",
    "31.9.2026",
    "2026-10-32",
    "10/05/2026",
    "2026-10-5",
    "Total",
    "Summe",
    "5.10.26",
    "2026-02-30",
]
OTHER_DATES = ["2026-09-30", "1.11.2026", "2025-10-05", "30.9.2026"]


def folder(seed: int) -> dict[str, bytes]:
    """A month's files by name, for 2026-10; the same for the same seed."""
    random = Random(seed)
    files: dict[str, bytes] = {}
    for kind in ("timesheet", "invoice"):
        writing = random.choice([POINT, COMMA, UNDECIDED, POINT | COMMA])
        rows = [row(random, kind, writing) for _ in range(random.randint(0, 14))]
        for index in range(random.choice([0, 1, 1, 1, 2, 3])):
            name = f"{kind}{random.choice(['', '-', 's ', '_ü'])}{index}{random.choice(['.csv', '.csv', '.CSV'])}"
            part = [respelled(random, r) for r in rows if random.random() < 0.75]
            files[name] = odd(random) if random.random() < 0.06 else table(random, kind, part)
    return files


def odd(random: Random) -> bytes:
    return random.choice(
        [
            b"",
            b"\n\n",
            b"\xef\xbb\xbf",
            b"PK\x03\x04\x14\x00\x06\x00",
            b"a,b,c\n1,2,3\n",
            b"date,project\nx,y\n",
        ]
    )


def row(random: Random, kind: str, writing: set[str]) -> dict[str, str]:
    def mostly(good: list[str], bad: list[str]) -> str:
        return random.choice(bad if random.random() < 0.06 else good)

    date = mostly([f"2026-10-{random.randint(1, 31):02d}"], BAD_DATES + OTHER_DATES)
    currency = mostly(CURRENCIES, ["Taler", "???", "", "EURO2"])
    if kind == "timesheet":
        return {
            "date": date,
            "project": mostly(["Alpha", "Bäta", "C; d", "E, f", 'Say "hi"'], ["", " ", "two\nlines"]),
            "task": mostly(["build", "Prüfung", "x"], ["", "one\ntwo\nthree"]),
            "hours": mostly([cell for cell in HOURS if cell in writing], BAD_HOURS),
            "rate": mostly([cell for cell in NUMBERS if cell in writing], [*BAD_NUMBERS, "-1", "-0.01", "0"]),
            "currency": currency,
        }
    amount = mostly([cell for cell in NUMBERS if cell in writing], BAD_NUMBERS)
    return {
        "number": mostly([f"R{random.randint(1, 12)}", f"2026/{random.randint(1, 40)}"], [""]),
        "date": date,
        "due_date": mostly(["", "2026-11-05", "5.11.2026"], ["soon", "31.2.2026"]),
        "amount": "-" + amount if amount[:1].isdigit() and random.random() < 0.15 else amount,
        "currency": currency,
        "status": mostly(["paid", "open", "void", "Open", " PAID "], ["pending", "", "lost"]),
        "paid_date": mostly(["", "2026-10-20", "20.10.2026"], ["never"]),
    }


def respelled(random: Random, cells: dict[str, str]) -> dict[str, str]:
    """The same row as another person would write it."""
    written = dict(cells)
    if cells["date"][:8] == "2026-10-" and len(cells["date"]) == 10 and random.random() < 0.4:
        day = cells["date"][8:]
        written["date"] = f"{random.choice([day, str(int(day))])}.10.2026"
    if random.random() < 0.15:
        written["currency"] = {"EUR": "€", "eur": "EUR"}.get(cells["currency"], cells["currency"])
    for column in ("hours", "rate", "amount"):
        if column in cells and cells[column].isdigit() and random.random() < 0.05:
            written[column] += random.choice(["", ".0", ",0", ".00"])
    if random.random() < 0.1:
        column = random.choice(sorted(written))
        written[column] = f" {written[column]}{random.choice([' ', chr(0xA0)])}"
    return written


def table(random: Random, kind: str, rows: list[dict[str, str]]) -> bytes:
    coding, mark = random.choice(CODINGS)
    delimiter, end = random.choice(",,;;\t"), random.choice(["\n", "\n", "\r\n", "\r"])
    columns = sorted(HEADERS[kind])
    if random.random() < 0.05:
        columns.remove(random.choice(columns))
    columns += [f"extra {n}" for n in range(random.choice([0, 0, 1, 2]))]
    random.shuffle(columns)
    lines = [delimiter.join(random.choice(HEADERS[kind].get(name, [name])) for name in columns)]
    for cells in rows:
        values = [cells.get(name, random.choice(["1.5", "1,5", "note", ""])) for name in columns]
        lines.append(flawed(random, delimiter, [quoted(random, value, delimiter) for value in values]))
        if random.random() < 0.05:
            lines.append(random.choice(["", "   ", delimiter * (len(columns) - 1)]))
    text = end.join(lines) + random.choice(["", end, end + end])
    return mark + text.replace("\u20ac", "EUR" if coding == "latin-1" else "\u20ac").encode(coding)


def quoted(random: Random, value: str, delimiter: str) -> str:
    if delimiter in value or "\n" in value or value.startswith('"') or random.random() < 0.1:
        return '"' + value.replace('"', '""') + '"'
    return value


def flawed(random: Random, delimiter: str, cells: list[str]) -> str:
    kind = random.random()
    if any("\n" in cell for cell in cells) or kind > 0.12:
        return delimiter.join(cells)
    if kind < 0.05:  # a mark that nothing closes
        plain = [cell.strip('"').replace('""', "") for cell in cells]
        plain = [cell.replace(delimiter, " ") for cell in plain]
        at = random.choice([0, len(plain) - 1, random.randrange(len(plain))])
        plain[at] = '"' + (plain[at].strip() or "x")
        return delimiter.join(plain)
    if kind < 0.07:
        return delimiter.join(cells) + delimiter * random.randint(1, 3)
    if kind < 0.09:
        return delimiter.join([*cells, "surplus"])
    if kind < 0.11:
        return delimiter.join(cells[: random.randint(1, len(cells) - 1)])
    return delimiter.join(["Summe", *("" for _ in cells[1:])])
