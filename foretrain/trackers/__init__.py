"""Trackers: services and file formats that metrics are also sent to, one per file."""
