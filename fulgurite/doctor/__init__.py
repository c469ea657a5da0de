"""Cluster diagnostics: can these processes train together, and fast enough?"""
