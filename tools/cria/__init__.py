"""Everything that makes `cria`, the house model: corpus, tokenizer, training, export, evaluation."""
