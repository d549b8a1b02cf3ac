using 'main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'companion-dev')
param location = readEnvironmentVariable('AZURE_LOCATION', 'swedencentral')
param ownerKey = readEnvironmentVariable('COMPANION_OWNER_KEY')
param tags = {
  stage: 'dev'
}
