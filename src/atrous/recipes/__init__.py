"""Recipes: functions that return a Recipe; their docstrings give the command, cost and score."""
