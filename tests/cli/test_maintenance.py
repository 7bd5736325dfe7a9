"""Commands on an installation that is there, and on one that is not."""

from pathlib import Path

import pytest

from tests.servers import Server, running

COMMANDS = {
    "fsck": ("fsck",),
    "fsck --repair": ("fsck", "--repair"),
    "sweep": ("sweep",),
    "keys list": ("keys", "list"),
    "keys create": ("keys", "create", "--scope", "assets:read"),
    "keys revoke": ("keys", "revoke", "key_" + "0" * 36),
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The data directory of a server that was stopped, and the settings with its store in another place."""
    folder = tmp_path_factory.mktemp("elsewhere")
    env = {"MEDIASVC_STORE_URL": f"file:{folder / 'blobs'}"}
    with running(folder / "data", **env) as server, server.client() as client:
        assert client.put("/b/media/one", content=b"1").status_code == 201
    return folder / "data", env


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "an empty folder"])
def test_a_mistyped_data_dir_is_told_and_nothing_is_made_or_removed(
    tmp_path: Path, elsewhere: tuple[Path, dict[str, str]], command: tuple[str, ...], there: bool
) -> None:
    data_dir, env = elsewhere
    mistyped = tmp_path / "mistyped"
    if there:
        mistyped.mkdir()
    before = files_in(data_dir.parent), files_in(tmp_path)
    done = Server(mistyped, **env).run(*command)
    assert (done.returncode, done.stdout) == (7, "")
    (sentence,) = done.stderr.splitlines()
    assert str(mistyped) in sentence
    assert "--data-dir" in sentence
    assert (files_in(data_dir.parent), files_in(tmp_path)) == before


def test_the_catalogue_that_is_not_there_is_named_by_its_setting(
    tmp_path: Path, elsewhere: tuple[Path, dict[str, str]]
) -> None:
    data_dir, env = elsewhere
    done = Server(data_dir, **env, MEDIASVC_CATALOGUE_URL=f"sqlite:{tmp_path}/absent.db").run("fsck")
    assert done.returncode == 7
    assert f"{tmp_path}/absent.db" in done.stderr
    assert "MEDIASVC_CATALOGUE_URL" in done.stderr
    assert files_in(tmp_path) == set()


def test_a_store_that_is_not_there_is_told_and_not_made(
    tmp_path: Path, elsewhere: tuple[Path, dict[str, str]]
) -> None:
    """A disk that is not mounted must not make every asset a damaged one."""
    data_dir, _ = elsewhere
    done = Server(data_dir, MEDIASVC_STORE_URL=f"file:{tmp_path}/absent").run("fsck", "--repair")
    assert (done.returncode, done.stdout) == (7, "")
    assert "MEDIASVC_STORE_URL" in done.stderr
    assert files_in(tmp_path) == set()


def test_blobs_that_an_empty_catalogue_does_not_know_are_reported_and_left(
    tmp_path: Path, elsewhere: tuple[Path, dict[str, str]]
) -> None:
    data_dir, env = elsewhere
    with running(tmp_path / "another") as another:
        pass
    done = Server(another.data_dir, **env).run("fsck", "--repair")
    assert done.returncode == 1
    assert "ownerless_blob" in done.stdout
    assert "left" in done.stdout
    checked = Server(data_dir, **env).run("fsck", "--deep")
    assert (checked.returncode, checked.stdout) == (0, "")


def test_on_an_installation_that_is_there_all_is_as_ever(elsewhere: tuple[Path, dict[str, str]]) -> None:
    server = Server(elsewhere[0], **elsewhere[1])
    assert server.run("fsck").returncode == 0
    assert server.run("sweep").returncode == 0
    assert server.run("keys", "create", "--scope", "assets:read").stdout.startswith("msk_")
    assert len(server.run("keys", "list").stdout.splitlines()) == 2
