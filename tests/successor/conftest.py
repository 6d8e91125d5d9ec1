from tests.servers.conftest import later as later
from tests.servers.conftest import shop as shop
from tests.servers.conftest import short as short
