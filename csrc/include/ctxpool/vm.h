#ifndef CTXPOOL_VM_H
#define CTXPOOL_VM_H
#endif
