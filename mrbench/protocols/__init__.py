"""The named protocols, one YAML file each."""
