from tests.servers.conftest import shop as shop
