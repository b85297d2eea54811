"""Trained models outside of training: exported files, the runtimes that execute them, the hub."""
