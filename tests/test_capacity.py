"""bench.capacity: needs grow with the volume, the bottleneck named is what is used up, the page is the code's."""

from bench.capacity import PAGE, PRICES, VOLUMES, Assumed, need, page_part, unit_costs
from bench.tables import placed

COST = {
    "api_ms": 0.0, "ingest_ms": 1.0, "infer_ms": 9.0, "postgres_ms": 0.1, "row_bytes": 1000.0, "fetched_bytes": 1e4,
    "working_copy_bytes": 1e4,
}  # fmt: skip


def test_cores_follow_from_rate_peak_and_cost() -> None:
    found = need(2_592_000 * 60, COST, Assumed(busy=0.6, peak=2.0), PRICES)  # 60 images a second
    assert round(found.rate, 6) == 60
    assert round(found.workers, 6) == round(60 * 2 * 0.009 / 0.6, 6)
    assert found.machines == 1
    assert found.bottleneck == "cores of the workers"
    assert need(2_592_000 * 6000, COST, Assumed(), PRICES).machines > 1


def test_what_is_used_up_is_named() -> None:
    slow = need(10**10, {**COST, "postgres_ms": 50.0}, Assumed(disk_tb=1e6), PRICES)
    assert slow.bottleneck.startswith("Postgres's cores")
    full = need(10**10, COST, Assumed(disk_tb=0.1), PRICES)
    assert full.bottleneck.startswith("Postgres's disk")


def test_the_page_is_what_the_unit_costs_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert placed(text, "capacity", page_part(Assumed(), PRICES)) == text
    needs = [need(images, unit_costs(), Assumed(), PRICES) for images in VOLUMES]
    assert needs[0].rows_tb < needs[1].rows_tb < needs[2].rows_tb
