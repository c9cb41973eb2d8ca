"""Settings: dataclasses, strict YAML and command-line flags."""
