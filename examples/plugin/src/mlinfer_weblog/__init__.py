"""Finds odd requests in the access logs of a web server: a source, a host and a destination for mlinfer."""
