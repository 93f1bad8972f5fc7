"""A fitted estimator as a file, as scikit-learn's, or as PyTorch's modules.

Reading order: modelfile.py (the safetensors file, its header and checksums), tables.py (what estimators for tables have
besides weights), model_writer.py, model_reader.py;
conversion.py and to_sklearn.py (from and to scikit-learn), nested.py (inside pipelines and other estimators);
to_torch.py, from_torch.py, torch_chain.py and torch_table.py (to and from PyTorch's modules).
fastmlp/persistence.py has the public names.
"""
