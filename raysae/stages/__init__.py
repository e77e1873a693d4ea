"""The stages of the chain: the only package that imports Ray.

Each module makes one kind of artifact out of finished ones (`run_…(chain)`); `chain` names them
all, `_pool` runs shards through actors. The mathematics is in the packages below and knows no Ray.
"""
