// Option structs as Python classes. A field is one line: its name, member, range and documentation.
//
//   OptionsClass<Options>(m, "Options", "What it sets.")
//       .number("max_kl", &Options::max_kl, kPositive, "nats, mean over the samples")
//       .flag("standardize", &Options::standardize, "divide by the standard deviation")
//       .finish();
//
// In Python the class takes keyword arguments and has attributes, ==, repr, replace, to_dict, from_dict
// and fields; it can be copied and pickled. Defaults are those of the struct. Every value, whichever of
// these ways it comes, is checked here with one sentence: the name, what was expected, what was given.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"

namespace trpo_fast::bindings {

// Finite numbers from low to high, and how an error calls them.
struct NumberRange {
  double low, high;
  const char* text;
};
inline constexpr double kLargest = std::numeric_limits<double>::max();
inline constexpr double kSmallest = std::numeric_limits<double>::denorm_min();
inline constexpr NumberRange kPositive{kSmallest, kLargest, "a positive number"};
inline constexpr NumberRange kNotNegative{0.0, kLargest, "a finite number of at least 0"};
inline constexpr NumberRange kShare{kSmallest, 1.0, "a number in (0, 1]"};
inline constexpr NumberRange kBelowOne{kSmallest, 1.0 - 1e-16, "a number in (0, 1)"};

inline std::string type_name(py::handle value) {
  return py::str(py::type::of(value).attr("__name__"));
}

inline bool is_numpy(py::handle value, const char* kind) {
  return py::isinstance(value, py::module_::import("numpy").attr(kind));
}

inline bool is_integer(py::handle value) {
  return !PyBool_Check(value.ptr()) && (PyLong_Check(value.ptr()) || is_numpy(value, "integer"));
}

inline double checked_number(const std::string& name, py::handle value, const NumberRange& range) {
  if (!PyFloat_Check(value.ptr()) && !is_integer(value) && !is_numpy(value, "floating"))
    throw py::type_error(name + ": expected a number, got " + type_name(value) + ".");
  const double number = PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred()) PyErr_Clear();  // an integer beyond all doubles, refused below
  else if (number >= range.low && number <= range.high) return number;  // false for NaN
  throw py::value_error(name + ": expected " + range.text + ", got " + std::string(py::str(value)) +
                        ".");
}

template <class Integer>
std::string integer_text(Integer low, Integer high) {
  return std::cmp_equal(high, std::numeric_limits<std::int64_t>::max())
             ? "an integer of at least " + std::to_string(low)
             : "an integer between " + std::to_string(low) + " and " + std::to_string(high);
}

template <class Integer>
Integer checked_integer(const std::string& name, py::handle value, Integer low, Integer high) {
  if (!is_integer(value))
    throw py::type_error(name + ": expected an integer, got " + type_name(value) + ".");
  const py::object number = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!number) throw py::error_already_set();
  if (number < py::int_(low) || number > py::int_(high))
    throw py::value_error(name + ": expected " + integer_text(low, high) + ", got " +
                          std::string(py::str(value)) + ".");
  return number.cast<Integer>();
}

inline bool checked_flag(const std::string& name, py::handle value) {
  if (!PyBool_Check(value.ptr()) && !is_numpy(value, "bool_"))
    throw py::type_error(name + ": expected True or False, got " + type_name(value) + ".");
  return PyObject_IsTrue(value.ptr()) == 1;
}

template <class Enum>
using Choices = std::vector<std::pair<const char*, Enum>>;

template <class Enum>
std::string choices_text(const Choices<Enum>& choices) {
  std::string text = "one of ";
  for (const auto& [name, value] : choices)
    text += (name == choices.front().first ? "" : ", ") + std::string(name);
  return text;
}

template <class Enum>
Enum checked_choice(const std::string& name, py::handle value, const Choices<Enum>& choices) {
  if (py::isinstance<py::str>(value)) {
    const std::string given = py::str(value);
    for (const auto& [text, choice] : choices)
      if (given == text) return choice;
  }
  throw py::value_error(name + ": expected " + choices_text(choices) + ", got " +
                        std::string(py::repr(value)) + ".");
}

template <class Enum>
const char* choice_name(Enum value, const Choices<Enum>& choices) {
  for (const auto& [text, choice] : choices)
    if (choice == value) return text;
  throw std::logic_error("a choice without a name");
}

template <class Options>
class OptionsClass {
 public:
  OptionsClass(py::module_& m, const char* name, const char* documentation)
      : class_(m, name), name_(name), documentation_(documentation) {}

  OptionsClass& number(const char* name, double Options::* member, NumberRange range,
                       const char* documentation) {
    return add({name, range.text, documentation,
                [=](const Options& o) { return py::float_(o.*member); },
                [=](Options& o, py::handle v) { o.*member = checked_number(name, v, range); }});
  }

  OptionsClass& optional_number(const char* name, std::optional<double> Options::* member,
                                NumberRange range, const char* documentation) {
    return add({name, std::string(range.text) + ", or None", documentation,
                [=](const Options& o) { return py::cast(o.*member); },
                [=](Options& o, py::handle v) {
                  if (v.is_none()) (o.*member).reset();
                  else o.*member = checked_number(name, v, range);
                }});
  }

  template <class Integer>
  OptionsClass& integer(const char* name, Integer Options::* member, Integer low,
                        const char* documentation) {
    constexpr Integer high = std::numeric_limits<Integer>::max();
    return add(
        {name, integer_text(low, high), documentation,
         [=](const Options& o) { return py::int_(o.*member); },
         [=](Options& o, py::handle v) { o.*member = checked_integer(name, v, low, high); }});
  }

  template <class Integer>
  OptionsClass& optional_integer(const char* name, std::optional<Integer> Options::* member,
                                 Integer low, const char* documentation) {
    constexpr Integer high = std::numeric_limits<Integer>::max();
    return add({name, integer_text(low, high) + ", or None", documentation,
                [=](const Options& o) { return py::cast(o.*member); },
                [=](Options& o, py::handle v) {
                  if (v.is_none()) (o.*member).reset();
                  else o.*member = checked_integer(name, v, low, high);
                }});
  }

  OptionsClass& flag(const char* name, bool Options::* member, const char* documentation) {
    return add({name, "True or False", documentation,
                [=](const Options& o) { return py::bool_(o.*member); },
                [=](Options& o, py::handle v) { o.*member = checked_flag(name, v); }});
  }

  template <class Enum>
  OptionsClass& choice(const char* name, Enum Options::* member, Choices<Enum> choices,
                       const char* documentation) {
    return add({name, choices_text(choices), documentation,
                [=](const Options& o) { return py::str(choice_name(o.*member, choices)); },
                [=](Options& o, py::handle v) { o.*member = checked_choice(name, v, choices); }});
  }

  // A check of several fields together; it throws where they do not fit.
  OptionsClass& rule(void (*check)(const Options&)) {
    table_->rule = check;
    return *this;
  }

  // Makes the class; nothing is added after it.
  void finish() {
    using namespace py::literals;
    const std::shared_ptr<const Table> table = table_;
    const auto make = [table](const py::dict& values) {
      Options options;
      table->assign(options, values);
      return options;
    };

    std::string text = documentation_ + "\n\nParameters\n----------\n";
    for (const Field& field : table->fields) {
      class_.def_property(
          field.name.c_str(), [get = field.get](const Options& o) { return get(o); },
          [set = field.set](Options& o, const py::object& value) { set(o, value); });
      text += field.name + "\n    " + field.documentation + "; " + field.expected +
              ", by default " + std::string(py::repr(field.get(Options{}))) + ".\n";
    }
    class_.doc() = text.c_str();

    class_.def(py::init([make](const py::kwargs& settings) { return make(settings); }))
        .def_static("from_dict", make, "settings"_a)
        .def("to_dict", [table](const Options& o) { return table->to_dict(o); })
        .def("replace",
             [table](const Options& o, const py::kwargs& settings) {
               Options changed = o;
               table->assign(changed, settings);
               return changed;
             })
        .def("__setattr__",
             [table](const py::object& self, const std::string& name, const py::object& value) {
               table->field(name);  // refuses an unknown name
               if (PyObject_GenericSetAttr(self.ptr(), py::str(name).ptr(), value.ptr()) != 0)
                 throw py::error_already_set();
             })
        .def("__eq__",
             [table](const Options& o, const py::object& other) -> py::object {
               if (!py::isinstance<Options>(other))
                 return py::reinterpret_borrow<py::object>(Py_NotImplemented);
               const auto& that = other.cast<const Options&>();
               return py::bool_(table->to_dict(o).equal(table->to_dict(that)));
             })
        .def("__repr__",
             [table, name = name_](const Options& o) {
               std::string line = name + "(";
               for (const Field& field : table->fields)
                 line += (&field == &table->fields.front() ? "" : ", ") + field.name + "=" +
                         std::string(py::repr(field.get(o)));
               return line + ")";
             })
        .def(py::pickle([table](const Options& o) { return table->to_dict(o); }, make))
        // name -> (default, what is expected, documentation)
        .def_static("fields", [table] {
          py::dict fields;
          for (const Field& field : table->fields)
            fields[py::str(field.name)] =
                py::make_tuple(field.get(Options{}), field.expected, field.documentation);
          return fields;
        });
  }

 private:
  struct Field {
    std::string name, expected, documentation;
    std::function<py::object(const Options&)> get;
    std::function<void(Options&, py::handle)> set;
  };

  struct Table {
    std::string owner;
    std::vector<Field> fields;
    void (*rule)(const Options&) = nullptr;

    const Field& field(const std::string& name) const {
      py::list names;
      for (const Field& field : fields) {
        if (field.name == name) return field;
        names.append(field.name);
      }
      const py::list close =
          py::module_::import("difflib").attr("get_close_matches")(name, names, 1);
      const std::string remedy = close.empty()
                                     ? "the settings are listed in help(" + owner + ")"
                                     : "did you mean " + std::string(py::str(close[0])) + "?";
      throw py::type_error(name + ": expected the name of a setting of " + owner +
                           ", got an unknown one; " + remedy + (close.empty() ? "." : ""));
    }

    void assign(Options& options, const py::dict& settings) const {
      for (const auto& [name, value] : settings) field(py::str(name)).set(options, value);
      if (rule) rule(options);
    }

    py::dict to_dict(const Options& options) const {
      py::dict values;
      for (const Field& field : fields) values[py::str(field.name)] = field.get(options);
      return values;
    }
  };

  OptionsClass& add(Field field) {
    table_->fields.push_back(std::move(field));
    return *this;
  }

  py::class_<Options> class_;
  std::string name_, documentation_;
  std::shared_ptr<Table> table_ = std::make_shared<Table>(Table{name_, {}, nullptr});
};

}  // namespace trpo_fast::bindings
