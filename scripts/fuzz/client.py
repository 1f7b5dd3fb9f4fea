"""Creates, lists and deletes a volume with a client that was generated from the API's own description."""

import importlib
import sys


def main(url: str) -> None:
    package = importlib.import_module("levee_client")
    api = importlib.import_module("levee_client.api.volumes")
    models = importlib.import_module("levee_client.models")
    for name in ("post_volumes", "get_volumes", "get_volumes_by_name", "delete_volumes_by_name", "post_volumes_batch"):
        importlib.import_module(f"levee_client.api.volumes.{name}")
    client = package.Client(base_url=url)
    with client as client:
        create = models.CreateVolume(name="generated", size=1 << 30, copies=1, min_copies=1)
        made = api.post_volumes.sync_detailed(client=client, body=create, idempotency_key="generated-1")
        assert made.status_code == 201 and made.parsed.name == "generated", made
        again = api.post_volumes.sync_detailed(client=client, body=create, idempotency_key="generated-1")
        assert again.parsed == made.parsed, "the same key, another answer"
        refused = api.post_volumes.sync_detailed(client=client, body=create)
        assert refused.status_code == 409 and refused.parsed.kind.value == "exists", refused
        page = api.get_volumes.sync(client=client, limit=1000)
        assert "generated" in [volume.name for volume in page.items], page
        shown = api.get_volumes_by_name.sync(client=client, name="generated")
        assert shown.size == 1 << 30, shown
        batch = models.CreateVolumes(volumes=[models.CreateVolume(name=f"batch-{i}", size=4096, copies=1, min_copies=1) for i in range(3)])
        done = api.post_volumes_batch.sync(client=client, body=batch)
        assert done.created == 3 and [item.name for item in done.items] == ["batch-0", "batch-1", "batch-2"], done
        for name in ("generated", "batch-0", "batch-1", "batch-2"):
            gone = api.delete_volumes_by_name.sync_detailed(client=client, name=name)
            assert gone.status_code == 204, gone
        missing = api.get_volumes_by_name.sync(client=client, name="generated")
        assert missing.kind.value == "not-found", missing
    print("generated client: created, listed and deleted volumes")


main(sys.argv[1])
