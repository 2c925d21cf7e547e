"""From changes in the folders to one event per folder that has come to rest."""
