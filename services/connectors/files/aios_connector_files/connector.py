"""The connector: its actions over one root."""

from typing import Final

from aios_connector_files.actions.append_line import AppendLineAction
from aios_connector_files.actions.look import LookAction
from aios_connector_files.actions.read_folder import ReadFolderAction
from aios_connector_files.actions.write_file import WriteFileAction
from aios_connector_files.blobs import Blobs
from aios_connector_files.root import Root
from aios_sdk.connector import Connector

NAME: Final = "files"
VERSION: Final = "1"


def files_connector(root: Root, blobs: Blobs) -> Connector:
    """`files.read_folder`, `files.look`, `files.write_file`, `files.append_line`."""
    return Connector(
        NAME,
        VERSION,
        [ReadFolderAction(root), LookAction(root), WriteFileAction(root, blobs), AppendLineAction(root)],
    )
