"""Where a config comes from: files, HTTP, etcd, Consul, Vault, object stores; snapshots of them; secrets."""
