# cdata has no static type; datapath wraps every verb (see native/include/pyvnet/vnet.h).
from typing import Any

ffi: Any
lib: Any
