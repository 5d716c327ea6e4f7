#include "ctxpool/vm.h"
int cxp_placeholder_vm;
