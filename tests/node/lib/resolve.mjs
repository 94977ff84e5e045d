const top = new URL('../../../', import.meta.url);
const ours = new URL('client/node/src/index.js', top).href;
const packages = new URL('build/node/anything.js', top).href;

export function resolve(specifier, context, next) {
  if (specifier === 'sessiond') return { url: ours, shortCircuit: true };
  const isOutside = context.parentURL?.startsWith(top.href) && !context.parentURL.includes('/node_modules/');
  const isPackage = /^[a-z@]/.test(specifier) && !/^[a-z]+:/.test(specifier);
  return next(specifier, isOutside && isPackage ? { ...context, parentURL: packages } : context);
}
