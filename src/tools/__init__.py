"""What a person runs beside a run: proofs."""
