"""Currencies: ISO 4217 codes with their decimal places, and the spellings known from the start."""

import unicodedata
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

EXACT: Final = Context(prec=200, rounding=ROUND_HALF_EVEN)
"""Sums are exact in it: products of two 30-digit numbers, added up over all rows, need under 100 digits."""

_TWO_PLACES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD "
    "CDF CHE CHF CHW CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP "
    "GMD GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD "
    "MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR "
    "PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP "
    "TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL"
)
_NO_PLACES = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_PLACES = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_PLACES = "CLF UYW"

PLACES: Final[Mapping[str, int]] = {
    code: places
    for places, codes in ((2, _TWO_PLACES), (0, _NO_PLACES), (3, _THREE_PLACES), (4, _FOUR_PLACES))
    for code in codes.split()
}
"""Decimal places of every currency in use under ISO 4217, and of those withdrawn in the last years."""

_SPELLINGS = {
    "EUR": "€ euro euros",
    "USD": "$ us$ $us usd$ dollar dollars us-dollar us-dollars usdollar",
    "GBP": "£ pound pounds pfund",
    "CHF": "fr sfr franken",
    "JPY": "¥ ￥ yen",
    "CNY": "yuan renminbi rmb",
    "AUD": "a$ au$",
    "CAD": "c$ ca$",
    "NZD": "nz$",
    "HKD": "hk$",
    "SGD": "s$",
    "INR": "₹",
    "KRW": "₩",
    "PLN": "zł",
    "CZK": "kč",
    "ILS": "₪",
    "TRY": "₺",
    "UAH": "₴",
    "RUB": "₽",
    "VND": "₫",
}
_PHRASES = {
    "us dollar": "USD",
    "us dollars": "USD",
    "pound sterling": "GBP",
    "pounds sterling": "GBP",
    "british pound": "GBP",
    "british pounds": "GBP",
    "britische pfund": "GBP",
    "swiss franc": "CHF",
    "swiss francs": "CHF",
    "schweizer franken": "CHF",
    "japanese yen": "JPY",
    "us $": "USD",
}
_SHARED_MARKS = {
    "$": frozenset(
        [
            "USD",
            "AUD",
            "CAD",
            "NZD",
            "HKD",
            "SGD",
            "TWD",
            "MXN",
            "ARS",
            "CLP",
            "COP",
            "BRL",
            "BBD",
            "BMD",
            "BND",
            "BSD",
            "BZD",
            "FJD",
            "GYD",
            "JMD",
            "KYD",
            "LRD",
            "SBD",
            "SRD",
            "TTD",
            "XCD",
        ]
    ),
    "¥": frozenset({"JPY", "CNY"}),
    "￥": frozenset({"JPY", "CNY"}),
    "£": frozenset({"GBP", "EGP", "FKP", "GIP", "LBP", "SHP", "SSP", "SYP", "SDG"}),
}


def spelling_key(spelling: str) -> str:
    """What two spellings of a currency that differ in case, spaces or a final point have in common."""
    return " ".join(unicodedata.normalize("NFC", spelling).casefold().split()).rstrip(".").rstrip()


KNOWN_SPELLINGS: Final[Mapping[str, str]] = {
    **{code.casefold(): code for code in PLACES},
    **{spelling_key(word): code for code, words in _SPELLINGS.items() for word in words.split()},
    **_PHRASES,
}
"""Spelling key to currency code."""

NUMBER_MARKS: Final[Mapping[str, frozenset[str]]] = {
    form: _SHARED_MARKS.get(key, frozenset({code}))
    for key, code in KNOWN_SPELLINGS.items()
    for form in (key, key + ".")
}
"""What may stand beside a number, and the currencies it can mean there: `$ 90` does not contradict CAD."""


def rounded(amount: Decimal, currency: str) -> str:
    """The amount with exactly the currency's decimal places, rounded half-even; never -0 or an exponent."""
    quantum = Decimal(1).scaleb(-PLACES[currency])
    value = amount.quantize(quantum, context=EXACT)
    return format(value.copy_abs() if value.is_zero() else value, "f")


def plain(number: Decimal) -> str:
    """The exact number without exponent and without zeros at its end: 160.5, 8, 0."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
