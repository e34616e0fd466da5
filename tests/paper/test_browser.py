"""The pages as a browser shows them without a network: the sortable tables and the whole `snakemake --report`."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fake_results import write, write_pages

from harness.plan import grid

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no headless browser (Debian: chromium) is installed")


def page_after(page: Path, script: str, profile: Path) -> str:
    """The document as it is after the browser ran `script`, which sees no network."""
    copy = page.with_name(f"{page.stem}-scripted.html")
    text = page.read_text(encoding="utf-8")
    place = text.rindex("</body>")
    copy.write_text(f"{text[:place]}<script>{script}</script>{text[place:]}", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--virtual-time-budget=8000"]
    command = [CHROMIUM, *options, "--dump-dom", copy.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def answer(document: str) -> object:
    """What the script left in an element with the id `answer`."""
    found = re.search(r'<pre id="answer">(.*?)</pre>', document, flags=re.DOTALL)
    assert found, "the script did not run to its end"
    return json.loads(html.unescape(found[1]))


LEAVE = """
const leave = (value) => {
  const element = document.createElement("pre");
  element.id = "answer";
  element.textContent = JSON.stringify(value);
  document.body.append(element);
};
"""


def test_a_click_on_a_heading_sorts_and_a_second_turns_round_with_holes_last(make_table, tmp_path):
    csv = make_table(change=lambda cells: [Path(cell["path"]).unlink() for cell in cells if cell["method"] == "l1-30"])
    write_pages(csv, tmp_path / "quick")
    script = (
        LEAVE
        + """
        const table = document.querySelector("table"), row = table.tHead.rows[0];
        const column = [...row.cells].findIndex((cell) => cell.textContent === "Kept %");
        const read = () => [...table.tBodies[0].rows].map((line) => line.cells[column].textContent);
        const seen = [];
        for (let click = 0; click < 2; click++) {
          row.cells[column].querySelector("button").click();
          seen.push(read());
        }
        leave(seen);
        """
    )
    up, down = answer(page_after(tmp_path / "quick.html", script, tmp_path / "profile"))
    assert up[-1] == down[-1] == "—"
    numbers = [float(text.split(" ")[0]) for text in up[:-1]]
    assert numbers == sorted(numbers) and len(set(numbers)) > 2
    assert [float(text.split(" ")[0]) for text in down[:-1]] == sorted(numbers, reverse=True)


@pytest.fixture(scope="module")
def snakemake_report(tmp_path_factory):
    """`snakemake --report` of a copy of the workflow in which the cells are made-up files instead of rules."""
    root = tmp_path_factory.mktemp("workflow")
    shutil.copy(ROOT / "Snakefile", root)
    for name in ("architectures", "workflow", "paper", "harness", "config", "envs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    config |= {"build": ["small"], "methods": {"dense": {}, "edropout": {}, "l1": {}}}
    config["tables"] = {
        "small": {
            "datasets": ["digits"],
            "models": ["resnet8"],
            "methods": ["dense", "edropout", "l1"],
            "seeds": [1, 2],
        }
    }
    (root / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    cells = grid.cells(config, "small")
    write([{**cell, "path": str(root / grid.folder(cell) / "metrics.json")} for cell in cells], epochs=4)
    (root / "workflow" / "Snakefile").write_text(
        'include: "rules/folder.smk"\n'
        'configfile: "config/config.yaml"\n'
        'include: "rules/common.smk"\n'
        'include: "rules/paper.smk"\n'
        "rule all:\n"
        "    default_target: True\n"
        '    input: table_outputs("small"), "results/paper/report.pdf"\n'
    )
    for arguments in (["--cores", "2"], ["--report", "report.html"]):
        command = [sys.executable, "-m", "snakemake", *arguments]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return root / "report.html"


@pytest.mark.slow
def test_the_snakemake_report_shows_tables_figures_and_captions_offline(snakemake_report, tmp_path):
    script = (
        LEAVE
        + """
        const show = (content, path) => app.setView({
          navbarMode: "resultinfo", category: "small", content, contentPath: results[path].data_uri, resultPath: path,
        });
        const folder = "results/paper/small", seen = { results: Object.keys(results), categories };
        const later = (work) => new Promise((done) => setTimeout(() => done(work()), 700));
        (async () => {
          await later(() => show("img", `${folder}/figures/training-digits.png`));
          await later(() => {
            const picture = [...document.images].pop();
            seen.picture = [picture.naturalWidth, picture.naturalHeight];
            seen.caption = document.body.textContent.includes("Figure of the table small");
          });
          await later(() => show("html", `${folder}.html`));
          await later(() => {
            seen.frames = [...document.querySelectorAll("iframe")].map((frame) => frame.src.slice(0, 14));
          });
          const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
          seen.loaded = loaded.filter((name) => /^http/.test(name));
          leave(seen);
        })();
        """
    )
    seen = answer(page_after(snakemake_report, script, tmp_path / "profile"))
    assert {f"results/paper/small.{suffix}" for suffix in ("csv", "html", "pdf")} <= set(seen["results"])
    assert {"tables", "figures"} <= set(seen["categories"]["small"])
    assert seen["picture"] == [1400, seen["picture"][1]] and seen["picture"][1] > 300
    assert seen["caption"] and seen["frames"] == ["data:text/html"] and seen["loaded"] == []


@pytest.mark.slow
def test_the_snakemake_report_holds_the_graph_of_the_rules_and_their_run_times(snakemake_report, tmp_path):
    script = (
        LEAVE
        + """
        const later = (work) => new Promise((done) => setTimeout(() => done(work()), 900));
        (async () => {
          const seen = {};
          await later(() => app.setView({ content: "rulegraph" }));
          await later(() => { seen.graph = document.body.innerText; });
          await later(() => app.setView({ content: "stats" }));
          await later(() => { seen.times = document.querySelectorAll("svg, canvas").length; });
          leave(seen);
        })();
        """
    )
    seen = answer(page_after(snakemake_report, script, tmp_path / "profile"))
    assert "EDropout benchmark" in seen["graph"] and seen["times"] > 0
