"""Public photos of clothes that the demo may fetch where the internet is there: a list of URLs and whether it answers.

The photos are of github.com/alexeygrigorev/clothing-dataset (CC0), of its validation split here: the shipped tagger was
not trained on them. The list was put together without the internet, from the file names of that commit, and has not
been run against the real host by us; a test runs it against a local server.
"""

from collections.abc import Iterator
from itertools import chain, islice, zip_longest

import httpx2

COMMIT = "08b50460cf229fd852bb6c11564e0959f52578ca"
BASE = f"https://raw.githubusercontent.com/alexeygrigorev/clothing-dataset/{COMMIT}/images"
LICENCE = "CC0, github.com/alexeygrigorev/clothing-dataset"
TIMEOUT_S = 10.0


def listed(count: int) -> dict[str, str]:
    """File name → label of at most ``count`` photos, a label after the other."""
    rounds = zip_longest(*([(f"{photo}.jpg", label) for photo in photos] for label, photos in _PHOTOS.items()))
    named: Iterator[tuple[str, str]] = (pair for pair in chain.from_iterable(rounds) if pair)
    return dict(islice(named, count))


def unreachable(url: str) -> str | None:
    """Why the URL does not answer with a picture's bytes, in words; None if it does.

    Proxies of the environment are not asked, as the crawler will not ask them.
    """
    try:
        with httpx2.stream("GET", url, timeout=TIMEOUT_S, trust_env=False, follow_redirects=True) as response:
            return None if response.status_code == 200 else f"it answered {response.status_code}"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return str(error) or type(error).__name__


_PHOTOS = {
    "T-Shirt": (
        "f8b7bdad-76ce-4efc-a26c-6a9d625d91fe",
        "4a9ce2fd-5ffb-438a-93d6-83463910b87a",
        "7faa589f-aa4d-4402-84cf-520138c45db1",
        "b84c9f00-8738-49a7-b804-bb8c685a12f7",
        "099de1d5-7422-4230-b11b-fe581139b82c",
        "a9b25869-8ee5-4fbd-b3e8-e5067c5f73e7",
    ),
    "Pants": (
        "c91ab5e6-5cf8-4d79-87a6-a96abe18990f",
        "38e03d31-8068-4d73-82ac-c66334f907a5",
        "97074b7f-706a-4c17-b875-bd9baa5bed0e",
        "081b5ec1-13a6-43c8-991f-9ad2020f646a",
        "223939a1-c2a0-41c7-8956-fb1b6370ebeb",
        "17bebe65-17cc-42b3-885f-4e6c64a16f26",
    ),
    "Longsleeve": (
        "6826bbf8-4550-4cb8-8b08-ad2a096460b0",
        "9fda860e-3de6-4b36-80e7-63e794902370",
        "461a97c1-1738-46f8-9318-efff65d642a0",
        "6cd19a44-a38e-4620-98fb-5b7c5f16e5ba",
        "b3fb1dd4-6bfa-4688-ab2d-2f41ffb3d276",
        "20e5a129-ac26-4ec2-9bf1-f63427503929",
    ),
    "Shirt": (
        "a9fe576c-a408-4b3f-80de-d9cb04d36360",
        "31315e30-2742-4f7f-8168-10a0645d2163",
        "00143901-a14c-4600-960f-7747b4a3a8cd",
        "cad0e833-619e-4517-91ce-938497622c12",
        "309ead9a-2672-40b7-8a09-ab5fc6abccc0",
        "66f2df55-c425-40ae-9932-fa929df752d3",
    ),
    "Dress": (
        "835a1782-1eaf-41f3-9d5f-232161f4db53",
        "4114a9c0-eea0-442c-af14-8df6c586a016",
        "b2f77e73-5ae0-49ca-bb0e-aaad215bcd8f",
        "3eeaf330-2460-4d7f-844f-d7254d12e587",
        "f8aade97-3b1f-43d1-becb-9f12483fcc28",
        "b5c9449f-f1fe-4b81-a247-329145b6c277",
    ),
    "Shorts": (
        "0fc5edba-525c-4234-935f-af55b39530dc",
        "17e1cea3-4010-4f4f-b7a4-77d96594e219",
        "9de18803-34d3-4737-b958-075a1ffadbc1",
        "f31fd334-0aef-4c15-aba0-92aa541013b2",
        "6f1bb0dc-e0e5-4cb7-b410-c432f8632a69",
        "f53c2e58-848e-4185-98f8-e0bb416f1d42",
    ),
    "Shoes": (
        "454fd50e-89eb-412b-b16c-17f1730ed9b5",
        "24535295-abe3-4613-91f6-a7fe87954662",
        "e9c4090d-6f3a-4142-bd36-e5eebc57d641",
        "5bb088ac-ea91-419b-851e-1b04b7ce57db",
        "e787428b-ff3b-4018-8fbd-bff485db291d",
        "4eba049d-e813-4af9-913a-53b6877cdda2",
    ),
    "Outwear": (
        "2c1c3c2a-5b22-4133-9509-1877d6a106a0",
        "42518e91-c969-49f5-ac68-dfe394d7451e",
        "446df066-edee-4c69-90d7-5013bcc72cf2",
        "2ea87992-6eb5-46a2-9ac6-e4ac727179aa",
        "a18f1511-770a-4900-b748-691c6021a3b4",
        "ee4d62e7-6dbc-4131-a394-c199fa564250",
    ),
    "Hat": (
        "50cf0bbc-5a25-4df9-94fe-3323d2b61bff",
        "d9024c75-93f8-4b22-aeff-f7966d924c57",
        "7b4ca4a5-fd04-4a96-9f40-1a982ff6cb8b",
        "86a3f65f-8c08-48b6-a783-0e38ffa006ef",
        "7bfaa9c2-d467-4627-9ff4-233075aa65d4",
        "014b2a1b-c5a0-469b-b115-bc02b2001db5",
    ),
    "Skirt": (
        "4c2b720f-6916-4edf-a732-847c55eec881",
        "4d5d201a-11cb-4e5c-b291-9b8c833c4ddf",
        "36d30ee9-1a06-49a5-94ca-1e58f13e7dc2",
        "adefd137-8fd0-415b-8139-f406e5f46182",
        "46e4c390-2154-4f6f-8c6f-e7805564d929",
        "2ac96388-4353-44b6-a174-de2f2523afd1",
    ),
    "Polo": (
        "54730d1c-2c4d-4f00-9424-944113ccddf7",
        "5054fa1f-7153-47e1-a1cd-ecfa3c52cece",
        "85fd78ab-a6b3-4c0b-82ea-606c67a18c82",
        "97d79060-78c0-4111-af1b-57d1475aa0f2",
        "1a313444-17de-43ff-8a75-d02a81edbef4",
        "e5bff47c-bc9d-4ee8-a76f-9b315188eddd",
    ),
    "Undershirt": (
        "0bad128f-51d3-4f15-9213-0856d8bac797",
        "252b01db-50c1-4ee8-a479-17466634bd85",
        "2fc2cbb5-2f6b-4e7e-a747-7343fbcfce72",
        "e751d960-fa7c-445f-b4d7-b0e553042ffb",
        "8b0be452-c7d4-4c58-828d-88c70efcb0e5",
        "ce5fecb7-7b60-41a5-b517-7cf21f389c68",
    ),
}
