"""The conformance suite: what every connector must do, proven from outside. See `suite.ConnectorConformance`."""

from aios_sdk.conformance.artifacts import FolderArtifacts, pointer_to
from aios_sdk.conformance.suite import ConnectorConformance, Example

__all__ = ["ConnectorConformance", "Example", "FolderArtifacts", "pointer_to"]
