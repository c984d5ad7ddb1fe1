"""headrace leads an MLflow Project to production and keeps it healthy there."""
