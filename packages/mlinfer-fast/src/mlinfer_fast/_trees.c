/* Walks trees for many records at once.

   A lane is one record on its way down one tree. LANES of them go down side by side, without a branch that depends on data, so
   that the processor waits for many nodes at a time. Many records go down the same tree, which stays in the cache; a few
   records go down many trees at once. Values are added in the order of the trees: sums are scikit-learn's to the last bit. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define BLOCK 4096 /* records that go down all trees before the next ones begin */
#define MISSING_LEFT 0x80000000u

typedef struct {
    double threshold;
    uint32_t column; /* highest bit: a missing value goes left */
    uint32_t left;   /* the right child is the next node; a leaf is its own left child */
} Node;

typedef struct {
    PyObject_HEAD
    Node *nodes;
    double *values;
    uint32_t *roots;
    Py_ssize_t count, trees, columns, outputs;
    int turns;
} Trees;

/* `gaps`: whether a value may be missing. Known where this is inlined, like `lanes`, so that each use is a loop of its own. */
static inline __attribute__((always_inline)) void walk(const Node *nodes, uint32_t *at, const double *const *rows,
                                                       const int lanes, const int gaps) {
    uint32_t moved;
    do {
        moved = 0;
#pragma GCC unroll 16 /* LANES: a seventh faster than a loop */
        for (int lane = 0; lane < lanes; lane++) {
            const Node *node = nodes + at[lane];
            const double value = rows[lane][node->column & ~MISSING_LEFT];
            uint32_t right = !(value <= node->threshold);
            if (gaps) right &= ~((uint32_t)(value != value) & (node->column >> 31));
            const uint32_t next = node->left + right;
            moved |= next ^ at[lane];
            at[lane] = next;
        }
    } while (moved);
}

static void down(const Node *nodes, uint32_t *at, const double *const *rows, int lanes, int gaps) {
    if (lanes < LANES) walk(nodes, at, rows, lanes, 1);
    else if (gaps) walk(nodes, at, rows, LANES, 1);
    else walk(nodes, at, rows, LANES, 0);
}

static int any_missing(const double *records, Py_ssize_t count) {
    int found = 0;
    for (Py_ssize_t place = 0; place < count; place++) found |= records[place] != records[place];
    return found;
}

static inline void add(const Trees *self, Py_ssize_t tree, uint32_t leaf, double *scores) {
    if (self->turns) {
        scores[tree % self->outputs] += self->values[leaf];
        return;
    }
    const double *value = self->values + (size_t)leaf * self->outputs;
    for (Py_ssize_t output = 0; output < self->outputs; output++) scores[output] += value[output];
}

static void many(const Trees *self, const double *records, double *scores, Py_ssize_t n) {
    const int gaps = any_missing(records, n * self->columns);
    uint32_t at[LANES];
    const double *rows[LANES];
    for (Py_ssize_t tree = 0; tree < self->trees; tree++) {
        for (Py_ssize_t start = 0; start < n; start += LANES) {
            const int lanes = n - start < LANES ? (int)(n - start) : LANES;
            for (int lane = 0; lane < lanes; lane++) {
                at[lane] = self->roots[tree];
                rows[lane] = records + (start + lane) * self->columns;
            }
            down(self->nodes, at, rows, lanes, gaps);
            for (int lane = 0; lane < lanes; lane++)
                add(self, tree, at[lane], scores + (start + lane) * self->outputs);
        }
    }
}

static void few(const Trees *self, const double *records, double *scores, Py_ssize_t n) {
    const int gaps = any_missing(records, n * self->columns);
    uint32_t at[LANES];
    const double *rows[LANES];
    for (Py_ssize_t record = 0; record < n; record++) {
        for (int lane = 0; lane < LANES; lane++) rows[lane] = records + record * self->columns;
        for (Py_ssize_t tree = 0; tree < self->trees; tree += LANES) {
            const int lanes = self->trees - tree < LANES ? (int)(self->trees - tree) : LANES;
            for (int lane = 0; lane < lanes; lane++) at[lane] = self->roots[tree + lane];
            down(self->nodes, at, rows, lanes, gaps);
            for (int lane = 0; lane < lanes; lane++)
                add(self, tree + lane, at[lane], scores + record * self->outputs);
        }
    }
}

/* A copy of a buffer, at least one byte; NULL with an error set. */
static void *copied(PyObject *from, Py_ssize_t size, Py_ssize_t *count) {
    Py_buffer view;
    if (PyObject_GetBuffer(from, &view, PyBUF_SIMPLE) < 0) return NULL;
    void *to = malloc(view.len ? (size_t)view.len : 1);
    if (to == NULL) PyErr_NoMemory();
    else memcpy(to, view.buf, (size_t)view.len);
    *count = view.len / size;
    if (view.len % size) {
        free(to);
        to = NULL;
        PyErr_SetString(PyExc_ValueError, "a buffer that ends within an item");
    }
    PyBuffer_Release(&view);
    return to;
}

static const char *wrong(const Trees *self, Py_ssize_t values) {
    if (self->columns < 1 || self->columns > INT32_MAX || self->outputs < 1 || self->outputs > 65536)
        return "no columns or no outputs";
    if (self->count < 1 || self->count >= INT32_MAX || self->trees < 1) return "no nodes or no trees";
    if (values != self->count * (self->turns ? 1 : self->outputs)) return "another number of values";
    for (Py_ssize_t tree = 0; tree < self->trees; tree++)
        if (self->roots[tree] >= self->count) return "a root out of place";
    for (Py_ssize_t at = 0; at < self->count; at++) {
        const Node *node = self->nodes + at;
        if ((node->column & ~MISSING_LEFT) >= (uint32_t)self->columns) return "a column out of place";
        if (node->left == (uint32_t)at) { /* every value must go left, or the walk would leave the leaf */
            if (!(node->threshold > 1.7976931348623157e308) || !(node->column & MISSING_LEFT)) return "a leaf that lets go";
        } else if (node->left <= (uint32_t)at || (Py_ssize_t)node->left + 1 >= self->count) {
            return "a child out of place";
        }
    }
    return NULL;
}

static void let_go(Trees *self) {
    free(self->nodes);
    free(self->values);
    free(self->roots);
    self->nodes = NULL;
    self->values = NULL;
    self->roots = NULL;
}

static PyObject *trees_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"nodes", "values", "roots", "columns", "outputs", "turns", NULL};
    PyObject *nodes, *values, *roots;
    Py_ssize_t columns, outputs, value_count = 0;
    int turns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOnnp", names, &nodes, &values, &roots, &columns, &outputs, &turns))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Trees *self = (Trees *)alloc(type, 0); /* zeroed */
    if (self == NULL) return NULL;
    self->columns = columns;
    self->outputs = outputs;
    self->turns = turns;
    self->nodes = copied(nodes, sizeof(Node), &self->count);
    if (self->nodes != NULL) self->values = copied(values, sizeof(double), &value_count);
    if (self->values != NULL) self->roots = copied(roots, sizeof(uint32_t), &self->trees);
    const char *what = self->roots == NULL ? NULL : wrong(self, value_count);
    if (what != NULL) PyErr_SetString(PyExc_ValueError, what);
    if (self->roots == NULL || what != NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void trees_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    let_go((Trees *)self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *trees_add(PyObject *object, PyObject *args) {
    Trees *self = (Trees *)object;
    PyObject *given, *wanted;
    Py_buffer records, scores;
    if (!PyArg_ParseTuple(args, "OO", &given, &wanted)) return NULL;
    if (PyObject_GetBuffer(given, &records, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (PyObject_GetBuffer(wanted, &scores, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&records);
        return NULL;
    }
    const Py_ssize_t width = self->columns * (Py_ssize_t)sizeof(double), n = records.len / width;
    const int fits = records.itemsize == 8 && scores.itemsize == 8 && n * width == records.len &&
                     n * self->outputs * (Py_ssize_t)sizeof(double) == scores.len;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t start = 0; start < n; start += BLOCK) {
            const Py_ssize_t part = n - start < BLOCK ? n - start : BLOCK;
            (part < LANES ? few : many)(self, (const double *)records.buf + start * self->columns,
                                        (double *)scores.buf + start * self->outputs, part);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&records);
    PyBuffer_Release(&scores);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "records or scores of another size");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"add", trees_add, METH_VARARGS, "Add each tree's value to the scores."}, {NULL, NULL, 0, NULL}};
static PyType_Slot slots[] = {{Py_tp_new, trees_new}, {Py_tp_dealloc, trees_dealloc}, {Py_tp_methods, methods},
                              {Py_tp_doc, "Trees, checked and copied."}, {0, NULL}};
static PyType_Spec spec = {"mlinfer_fast.Trees", sizeof(Trees), 0, Py_TPFLAGS_DEFAULT, slots};

static int made(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type == NULL) return -1;
    const int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, made}, {0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_trees", NULL, 0, NULL, module_slots, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__trees(void) { return PyModuleDef_Init(&module); }
