"""The proof that no layer stores or shows a wrong time: `verify`, on any database, a live one included.

It has the application make its own tables in a schema of their own, writes instants to them by every way there is,
reads them by every way there is, and asks an oracle what is stored, in whole microseconds, on a connection that nothing
else has touched. Sessions are moved to other zones meanwhile, and what is no instant is tried at every door.

What is wrong is in the `Report`, by path: `copy/orm` is what COPY wrote and the ORM read. Nothing else in the database
is written to or set, and the schema is removed whatever happens; what a run leaves that is killed, the next removes.
"""

from devtools.utc_check.report import Failure, Observation, Report
from devtools.utc_check.subjects import Resource, Row, Subject
from devtools.utc_check.verify import ZONES, verify

__all__ = ["ZONES", "Failure", "Observation", "Report", "Resource", "Row", "Subject", "verify"]
