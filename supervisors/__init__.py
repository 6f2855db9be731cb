"""OTP on trio."""
