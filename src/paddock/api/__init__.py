"""The public interface on trio; everything here is re-exported from :mod:`paddock`."""
