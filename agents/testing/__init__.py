"""Test doubles for the authors of apps."""

from .kernel import FakeKernel

__all__ = ["FakeKernel"]
