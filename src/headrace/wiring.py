"""The only place that names concrete back ends. Each is imported when it is asked for."""
