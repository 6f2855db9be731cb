"""Local language models on trio, supervised as Erlang/OTP supervises."""
