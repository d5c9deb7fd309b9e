#include "pyvnet/vnet.h"
