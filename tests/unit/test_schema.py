"""The schema's revisions, known without the library that migrates."""

from __future__ import annotations

from alembic.script import ScriptDirectory

from hearth.sql import schema
from hearth.sql.schema import migrate


def test_the_files_of_migrations_tell_their_revisions() -> None:
    scripts = ScriptDirectory(str(migrate.MIGRATIONS))
    assert schema.revisions() == [script.revision for script in scripts.walk_revisions()][::-1]
    assert schema.head() == scripts.get_current_head()
