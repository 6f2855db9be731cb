"""What is exact is found out, not believed: the probe, its certificate, and what exactness costs on this machine."""
