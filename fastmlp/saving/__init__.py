"""A fitted estimator as a file, or as scikit-learn's.

Reading order: modelfile.py (the safetensors file, its header and checksums), model_writer.py, model_reader.py;
conversion.py and to_sklearn.py (from and to scikit-learn), nested.py (inside pipelines and other estimators).
fastmlp/persistence.py has the public names.
"""
