"""Keeping an installation in order: garbage, environments, upgrades, roles and tokens."""
