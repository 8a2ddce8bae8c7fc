"""What billing providers, and a company's own tables, say of usage: fetched, kept, and compared with ours."""
