"""Databases under a study: opened, locked, made durable, and waited for."""
