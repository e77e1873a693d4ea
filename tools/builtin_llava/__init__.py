"""Parts of the two scripts that make raysae's built-in corpora and the built-in LLaVA-NeXT."""
