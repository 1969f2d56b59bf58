"""Compare diffusion models choice by choice."""

__version__ = "0.1.0"
