"""Looking after a storage: what it holds, whether it is whole, and what of it can go.

Three jobs that need no cluster: they work from the storage alone and start at once. Imports
neither Ray nor torch.
"""
