"""Other projects' vocabularies: read and written."""
