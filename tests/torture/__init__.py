"""Pipelines are killed, stopped and raced in processes of their own; what they delivered is judged from outside."""
