"""The page over 500 scans in a real headless browser.

Time until it is drawn, console errors, network requests, a picture.

python -m benchmarks.batch.page -o out/page [--scans 500] [--browser chromium]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.batch.outputs.results import ScanResult, outputs_of, thumbnail_of
from napari_strata.batch.outputs.tables_and_page import write_tables_and_page
from napari_strata.export.outputs import SIDECAR_FORMAT
from napari_strata.io.files import read, read_labels
from napari_strata.pipeline import versions
from napari_strata.report import thumbnail
from napari_strata.settings import ProposeSettings

SAMPLES = Path(__file__).parents[2] / "sample_scans"


def fake_batch(folder: Path, count: int) -> list[ScanResult]:
    """Make sidecars and thumbnails as a batch would leave them.

    Real pictures, drawn volumes and drifts, ten failures.
    """
    rng, results = np.random.default_rng(0), []
    (folder / "qc").mkdir(parents=True, exist_ok=True)
    pictures = []
    for name in ("head_t1", "chest_ct", "thick_t2"):
        volume, truth = (
            read(SAMPLES / f"{name}.nii.gz"),
            read_labels(SAMPLES / f"{name}_truth.nii.gz"),
        )
        thumbnail(volume, truth).save(folder / f"{name}.webp", quality=72)
        pictures.append((folder / f"{name}.webp").read_bytes())
    for k in range(count):
        scan = PlannedScan(
            f"sub-{k:04d}_T1w",
            folder / f"sub-{k:04d}_T1w.nii.gz",
            subject=f"{k:04d}",
            kind="T1w",
        )
        outputs = outputs_of(scan, folder, "flat")
        if (k + 1) % (count // 10) == 0:
            results.append(
                ScanResult(
                    scan,
                    outputs,
                    "failed",
                    f"{scan.path} is cut short. Copy or download it again."
                    " </script><b>",
                )
            )
            continue
        thumbnail_of(scan, folder).write_bytes(pictures[k % len(pictures)])
        drift = float(rng.gamma(40, 0.025)) * (2.2 if k % 97 == 3 else 1)
        ml = rng.gamma(60, 20, 16).tolist()
        document = {
            "format": SIDECAR_FORMAT,
            "scan": {
                "modality": "mr",
                "shape_zyx": [176, 256, 256],
                "spacing_zyx_mm": [1, 1, 1],
            },
            "cut": {"tissues": 16},
            "batch": {"seed": 0},
            "settings": ProposeSettings().to_dict(),
            "versions": versions(),
            "codebook": {
                "sha256": "0" * 64,
                "drift": round(drift, 4),
                "fits": drift <= 1.5,
            },
            "quality": {
                "labelled_ml": float(rng.normal(3200, 200)),
                "labelled_share": 0.4,
                "confidence": 0.7,
            },
            "regions": [
                {"id": n, "name": f"tissue {n}", "volume_ml": size}
                for n, size in enumerate(ml, 1)
            ],
        }
        outputs.sidecar.write_text(json.dumps(document))
        results.append(
            ScanResult(
                scan,
                outputs,
                "done",
                warning=(
                    "" if drift <= 1.5 else f"the scan does not fit (drift {drift:.2f})"
                ),
            )
        )
    return results


def drawn(browser: str, page: Path, picture: Path) -> dict[str, object]:
    """Open the page headless.

    Say how long it took from navigation until its table stood, and what else the
    browser said.
    """
    quiet = (
        "background-networking",
        "component-update",
        "sync",
        "default-apps",
        "gpu",
        "domain-reliability",
        "client-side-phishing-detection",
    )
    base = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--no-first-run",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        "--window-size=1500,1700",
    ]
    base += [f"--disable-{name}" for name in quiet]
    empty = page.with_name("empty.html")
    empty.write_text("<!doctype html><title>empty</title>")
    of_browser, _ = asked(base, empty)
    of_page, run = asked(base, page)
    found = re.search(r'data-drawn-ms="(\d+)"', run.stdout)
    subprocess.run(
        [*base, f"--screenshot={picture}", page.as_uri()],
        capture_output=True,
        timeout=300,
    )
    return {
        "drawn_ms": int(found[1]) if found else None,
        "rows_drawn": run.stdout.count("<img"),
        "console": [line for line in run.stderr.splitlines() if "CONSOLE" in line],
        "hosts_asked_beyond_those_of_an_empty_page": sorted(of_page - of_browser),
    }


def asked(
    base: list[str], page: Path
) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Open a page; give the hosts that were asked for anything.

    The browser's own services included, and the run.
    """
    log = page.with_suffix(".netlog.json")
    run = subprocess.run(
        [*base, f"--log-net-log={log}", "--dump-dom", page.as_uri()],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
    )
    urls = {
        part.split('"')[0]
        for part in log.read_text(errors="replace").split('"url":"')[1:]
    }
    return {
        urlsplit(url).netloc for url in urls if url.startswith(("http", "ws", "ftp"))
    }, run


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=500)
    parser.add_argument("--browser", default=shutil.which("chromium") or "chromium")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    _, page = write_tables_and_page(fake_batch(folder, arguments.scans), folder)
    figures = {"scans": arguments.scans, "page_mb": round(page.stat().st_size / 1e6, 2)}
    print(
        json.dumps(
            figures | drawn(arguments.browser, page, folder / "page.png"), indent=1
        )
    )


if __name__ == "__main__":
    main()
