"""A campaign against data loss: kills, full disks, damaged files, hostile input, races."""
